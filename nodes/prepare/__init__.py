"""Nodes that prepare references and models: image tokens, Redux, IP-Adapter traces, the demo."""
