"""The word lists that come with agilerl, and the script that builds them."""
