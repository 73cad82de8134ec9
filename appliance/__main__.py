"""``python -m appliance`` is the same as the ``appliance`` command."""

from appliance.cli import main

if __name__ == "__main__":
    main()
