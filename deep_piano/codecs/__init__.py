"""Notes or samples become sequences, and sequences notes or samples."""
