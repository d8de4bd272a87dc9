"""Why a user got the items that they got: read again from what the run was made from."""
