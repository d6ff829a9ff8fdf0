"""From the SDL: every viewer x personal field x way to it, and every argument; nothing shows more than was granted."""
