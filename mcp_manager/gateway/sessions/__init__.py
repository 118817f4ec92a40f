"""The sessions of clients of the handshake era: sealed ids, streams, questions to the client."""
