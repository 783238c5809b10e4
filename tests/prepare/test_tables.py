"""Tables of splits, as people write them, and the files that they name."""

from __future__ import annotations

import unicodedata

import pytest

from deep_piano.errors import InputError
from deep_piano.prepare.tables import Listed, read_table

FILES = ("a b.mid", "c.mid", "d.mid", "sub/e.mid")
SPLIT_OF = dict(zip(FILES, ("validation", "train", "test", "train"), strict=True))


def text(sep=",", head=("file", "split"), eol="\n", name=str, split=str, quote=str):
    rows = [head, *((name(file), split(value)) for file, value in SPLIT_OF.items())]
    return eol.join(sep.join(map(quote, row)) for row in rows) + eol


WRITTEN = {
    "as scripts do": text().encode(),
    "by Excel, as UTF-8": b"\xef\xbb\xbf" + text(eol="\r\n").encode(),
    "by Excel in Europe": text(sep=";", eol="\r\n").encode("cp1252"),
    "by Excel, as Unicode": text(sep="\t").encode("utf-16"),
    "without a byte order mark": text(sep="\t").encode("utf-16-le"),
    "with tabs": text(sep="\t").encode(),
    "with bars": text(sep="|").encode(),
    "by an old Macintosh": text(eol="\r").encode(),
    "with capital headings": text(head=("File", "Split")).encode(),
    "with spaces about": text(head=("file ", " split"), name="{} ".format).encode(),
    "quoted": text(quote='"{}"'.format).encode(),
    "with comments": b"# of my corpus, by hand\n\n" + text().encode() + b"# the end\n\n",
    "with headings in a comment": b"# " + text().encode(),
    "with a separator named": b"sep=;\r\n" + text(sep=";", eol="\r\n").encode(),
    "without headings": text().split("\n", 1)[1].encode(),
    "with other headings": text(head=("recording", "subset")).encode(),
    "with a heading of its own for names": text(head=("filepath", "split")).encode(),
    "with Windows' paths": text(name=lambda n: ".\\" + n.replace("/", "\\")).encode(),
    "with a dot before": text(name="./{}".format).encode(),
    "with whole paths": text(name="/home/me/corpus/{}".format).encode(),
    "with whole paths of Windows": text(name="C:\\music\\{}".format).encode(),
    "from the folder above": text(name="corpus/{}".format).encode(),
    "from two folders above": text(name="music/corpus/{}".format).encode(),
    "without suffixes": text(name=lambda n: n[:-4]).encode(),
    "with the suffix before conversion": text(name=lambda n: n[:-4] + ".wav").encode(),
    "in capitals": text(name=str.upper, split=str.upper).encode(),
    "with another name of a split": text(split=lambda s: s.replace("validation", "dev")).encode(),
}


def listed(data, files=FILES, name="splits.csv"):
    found = Listed(files, "corpus")
    table = read_table(name, data)
    if table is not None:
        found.add(table)
    return found


@pytest.mark.parametrize("written", WRITTEN)
def test_a_table_is_understood_however_it_is_written(written):
    found = listed(WRITTEN[written])
    assert {file: found.of(file) for file in FILES} == SPLIT_OF
    assert (found.matched, found.doubts()) == (4, [])


@pytest.mark.parametrize("written", ["NFC", "NFD"])
@pytest.mark.parametrize("on_disk", ["NFC", "NFD"])
def test_letters_with_accents_have_two_forms(written, on_disk):
    name = "Prélude für Elise.mid"
    data = f"file,split\n{unicodedata.normalize(written, name)},test\n".encode()
    file = unicodedata.normalize(on_disk, name)
    assert listed(data, [file]).of(file) == "test"
    assert listed(data.decode().encode("utf-16"), [file]).of(file) == "test"


def test_a_name_as_it_is_comes_before_one_that_is_like_it():
    files = ("A.mid", "a.mid", "a.wav", "b\\c.mid")
    data = b"file,split\nA.mid,test\na.mid,train\na.wav,validation\nb\\c.mid,test\n"
    found = listed(data, files)
    assert [found.of(file) for file in files] == ["test", "train", "validation", "test"]


def test_a_piece_that_is_there_twice_has_one_split():
    assert listed(b"file,split\na.wav,test\n", ["a.mid", "a.flac"]).of("a.flac") == "test"


def test_every_row_of_a_long_table_counts():
    files = [f"{n}.mid" for n in range(50)]
    data = "file,split\n" + "".join(f"{file},test\n" for file in files)
    found = listed(data.encode(), files)
    assert found.matched == 50
    assert {found.of(file) for file in files} == {"test"}


def test_names_are_beside_the_table_or_else_below_the_corpus():
    files = ("x/a.mid", "a.mid", "b.mid")
    found = listed(b"file,split\na.mid,test\nb.mid,train\n", files, name="x/splits.csv")
    assert [found.of(file) for file in files] == ["test", None, "train"]


def test_another_folder_of_the_same_name_is_not_meant():
    assert listed(b"file,split\n2004/a.mid,test\n", ["a.mid"]).of("a.mid") is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"a,b\n1,2\n",
        b"splits\n1\n",
        b"train\ntest\n",
        b"\xff\xfe\n\0",
        bytes(range(256)),
        b"file,train,test\na.mid,1,0\n",
    ],
)
def test_what_is_no_table_of_splits_says_nothing(data):
    found = listed(data)
    assert not found
    assert [found.of(file) for file in FILES] == [None] * 4


def test_rows_and_files_that_do_not_find_one_another_are_counted():
    [doubt] = listed(b"file,split\nx.mid,test\ny.mid,train\n").doubts()
    assert doubt == (
        "splits.csv: 0 of its 2 rows name a file of the corpus, and 4 of 4 files beside it are "
        "named by no row, such as a b.mid; its first row is 'x.mid, test'"
    )
    [doubt] = listed(b"file,split\nc.mid,test\ny.mid,train\n").doubts()
    assert "1 of its 2 rows" in doubt
    assert "3 of 4 files" in doubt


def test_rows_of_files_that_are_not_there_are_no_matter():
    data = text().encode() + b"not fetched.mid,train\n"
    assert (listed(data).matched, listed(data).doubts()) == (4, [])


@pytest.mark.parametrize("split", ["trian", "", "1", "eval"])
def test_another_split_is_refused_where_a_file_is_given_it(split):
    with pytest.raises(InputError, match=rf"splits.csv gives c\S+ the split '{split}'. Use"):
        listed(f"file,split\nc.mid,{split}\n".encode())
    # The times of a run, say.
    assert listed(f"name,split\nfirst lap,{split}\n".encode()).matched == 0


def test_two_splits_of_one_file_are_refused():
    with pytest.raises(
        InputError, match=r"c.flac is given the splits test and train by splits.csv"
    ):
        listed(b"file,split\nc.mid,test\nC.wav,train\n", ["c.flac"]).of("c.flac")
    with pytest.raises(InputError, match="test and train"):
        listed(b"file,split\nc.mid,test\nc.mid,train\n").doubts()


def test_a_table_that_no_parser_takes_is_refused():
    with pytest.raises(InputError, match="cannot be read as CSV"):
        listed(b"file,split\nc.mid,test\n" * 30 + b'"' + b"x" * 200_000 + b'",test\n')
