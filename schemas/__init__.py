"""What every other layer agrees on: tables, their layout, the settings files and the errors."""
