"""Accounts: passwords, tokens, sessions, invitations, the first admin, and what each may ask of the cluster."""
