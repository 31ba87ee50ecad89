"""The layers below a stanza: proxy request, TLS, websocket frames, Noise, and the binary encoding of nodes."""
