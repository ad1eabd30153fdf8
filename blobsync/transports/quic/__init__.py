"""iroh's QUIC on aioquic: see docs/architecture.md.

`endpoint.AioquicEndpoint` is the way in, once `guard.check_aioquic` has found aioquic fit for it.
"""
