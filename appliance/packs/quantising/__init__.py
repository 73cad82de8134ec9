"""INT8 twins of networks, and the gate they must pass; on a workstation (extra ``import``), never on the box."""
