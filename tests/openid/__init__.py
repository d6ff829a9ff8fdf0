"""Single sign-on against a real OpenID provider."""
