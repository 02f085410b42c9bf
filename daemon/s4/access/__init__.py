"""Who may do what: policies, what each operation needs, and who asks. Pure, but for nothing: no I/O here."""
