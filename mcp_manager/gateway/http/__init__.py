"""The HTTP side of the gateway: sockets, the compiled data path, aiohttp.web beside it."""
