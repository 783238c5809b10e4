"""`bench.keys`: which titles count, and what it prints."""

from __future__ import annotations

import pytest

from bench import keys
from deep_piano.music.midi import write_midi
from deep_piano.music.notes import make_notes

SONG = [60, 64, 67, 65, 62, 67, 71, 74, 60, 64, 67, 72, 69, 65, 62, 59, 67, 60]


@pytest.mark.parametrize(
    ("title", "composer", "name"),
    [
        ("Etude Op. 10 No. 4 in C-Sharp Minor", "Frédéric Chopin", "C# minor"),
        ("Prelude & Fugue in B flat minor, Book I, BWV 867", "J. S. Bach", "Bb minor"),
        ("Sonata in B Min.", "Domenico Scarlatti", "B minor"),
        ("Sonata in B Minor, S. 178", "Franz Liszt", None),
        ("Sonata No. 21 in C Major, Op. 53, First Movement", "Ludwig van Beethoven", "C major"),
        ("Sonata in C Major, K 330, I. Allegro moderato", "W. A. Mozart", "C major"),
        ("Sonata in D Major, K. 576, II - Adagio", "W. A. Mozart", None),
        ("Italian Concerto in F Major, BWV 971 (Complete)", "J. S. Bach", None),
        ("Etude Op. 10 No. 1", "Frédéric Chopin", None),
    ],
)
def test_titles_that_name_a_key(title, composer, name):
    found = keys.key_in(title, composer)
    assert (found and found.name) == name


@pytest.fixture
def corpus(tmp_path):
    onsets = [0.5 * n for n in range(10 * len(SONG))]
    for number, up in enumerate((0, 2)):
        pitches = [pitch + up for pitch in SONG] * 10
        notes = make_notes(onsets, [o + 0.4 for o in onsets], pitches, [80] * len(pitches))
        write_midi(tmp_path / f"{number}.mid", notes)
    lines = [
        "canonical_composer,canonical_title,midi_filename",
        "Nobody,Song in C Major,0.mid",
        "Nobody,Ballad in C Major,1.mid",
        "Nobody,Ballad in C Major,gone.mid",
        "Nobody,Song,0.mid",
    ]
    (tmp_path / "metadata.csv").write_text("\n".join(lines))
    return tmp_path


def test_what_is_right_is_counted_by_certainty(corpus, capsys):
    keys.main([str(corpus / "metadata.csv"), "--tempi", str(corpus), "--profiles"])
    printed = capsys.readouterr().out
    assert printed.startswith("2 performances of 2 works\n")
    assert "| all of it | 50% of 100% | 50% of 100% | none | none |" in printed
    best = "| Albrecht and Shanahan, 2013 | that, and more at both ends | 50% | 50% |"
    assert best in printed
    assert "2 files of one tempo" in printed
    assert "| sure | 100% of 100% | 100% of 100% |" in printed
