"""What development needs around walplane: a real Pulsar, generated code, the test run, the demo."""
