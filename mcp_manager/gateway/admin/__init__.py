"""The admin API of the gateway: the fleet over HTTP, for operators and their programs; and its page."""
