"""The running service: HTTP, broker, transport and the tasks that go with them."""
