"""Pure channel states and balance policies, shared by coordinator and operator; no asyncio."""
