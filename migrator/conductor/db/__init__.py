"""The conductor's database: tables (tables.py), connections and time (database.py), and one module of statements for each kind of row."""
