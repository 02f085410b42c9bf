"""Who may do what: policies, what each operation needs, and who asks. Pure: no I/O here."""
