# The service with MCP servers that are programs, installed in fixed versions from npm and PyPI. In the root of a
# checkout:
#
#     docker build -f examples/container/programs.Dockerfile -t mcp-service-programs examples/container
#
# In the fleet file, they are commands as on any machine:
#
#     [servers.files]
#     command = "mcp-server-filesystem"
#     args = ["/data"]
#
#     [servers.time]
#     command = "mcp-server-time"

ARG SERVICE=mcp-service
ARG NODE=docker.io/library/node:22-bookworm-slim

FROM ${NODE} AS node
WORKDIR /opt/node-servers
RUN npm install --no-audit --no-fund --omit=dev @modelcontextprotocol/server-filesystem@2026.8.31

FROM ${SERVICE}
USER 0:0
COPY --from=node /usr/local/bin/node /usr/local/bin/node
COPY --from=node /opt/node-servers /opt/node-servers
# An environment of their own: their dependencies do not have to agree with those of the service.
RUN python -m venv /opt/python-servers \
    && /opt/python-servers/bin/pip install --no-cache-dir mcp-server-time==2026.10.19
ENV PATH=$PATH:/opt/python-servers/bin:/opt/node-servers/node_modules/.bin
USER 10001:10001
