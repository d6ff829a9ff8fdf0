"""Events reach integrations: signatures, rendering, delivery."""
