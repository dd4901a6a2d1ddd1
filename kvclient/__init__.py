"""kvclient: a typed client for kvserver, Redis and Valkey."""
