"""From what is wanted and what is there to what to do; pure: clocks are passed in."""
