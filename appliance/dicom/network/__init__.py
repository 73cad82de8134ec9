"""The wire: who may connect, what is negotiated, how instances are received and sent."""
