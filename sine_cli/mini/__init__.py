"""The bundled base model `mini`: its weights, in a plain diffusers folder, and its card."""
