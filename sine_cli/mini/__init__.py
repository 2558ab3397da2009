"""The bundled base model `mini`: its weights and the former ones, each in a plain diffusers
folder, its scorer, its recipe and its card."""
