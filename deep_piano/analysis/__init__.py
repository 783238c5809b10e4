"""Music in figures: keys, descriptors, adherence, fingerprints, originality."""
