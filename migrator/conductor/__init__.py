"""The conductor: owns every workflow. Start reading at workflows/, then decide.py (what comes next), then engine.py (doing it)."""
