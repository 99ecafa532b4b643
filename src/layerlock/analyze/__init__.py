"""What is inside frozen encoders, depth by depth."""
