"""What is watched, the queue, one reconcile, and the process. Top layer of the operator."""
