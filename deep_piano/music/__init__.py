"""Sound and notes, and the ways between them: FFmpeg, MIDI, transcription, a sampled piano."""
