"""What people look at: piano rolls, charts, cards, tables."""
