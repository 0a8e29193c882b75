"""Alembic's view of the database: env.py runs the scripts in versions/, each of which expands first and contracts a release later."""
