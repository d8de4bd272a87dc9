"""What a send came to: how widely it showed the items, and what the mailed users bought afterwards."""
