"""The alert board: a small page that the box serves to the PC in the scanner room."""
