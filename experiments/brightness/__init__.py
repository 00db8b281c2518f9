"""Mean brightness of a network whose training ends short of pure noise: stuck at grey, and mended by the start."""
