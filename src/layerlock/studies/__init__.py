"""Studies: runs that differ in one thing, several seeds of each, and their encoders compared depth by depth."""
