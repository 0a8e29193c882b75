"""Tests against real servers: RabbitMQ, MariaDB, PostgreSQL and the lab."""
