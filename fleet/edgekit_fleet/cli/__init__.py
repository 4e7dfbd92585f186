"""Commands of the fleet; each module is loaded only when its command is called."""
