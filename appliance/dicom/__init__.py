"""The wire and the file: receiver, sender, series assembly, volume building."""
