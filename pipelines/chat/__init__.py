"""Recorded requests and responses of any API as OpenAI chat messages."""
