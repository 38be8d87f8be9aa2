"""`guard demo`: a real classifier is attacked over the wire, alone and behind the gateway."""
