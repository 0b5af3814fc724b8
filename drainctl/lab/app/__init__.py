"""The lab's app, as it is packed into each release."""
