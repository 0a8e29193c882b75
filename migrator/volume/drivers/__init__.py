"""The volume drivers that come with migrator; others are installed beside it and named by their entry point."""
