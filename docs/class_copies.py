"""Lessons for a class: python docs/class_copies.py FOLDER

Copies every lesson of nbs/lessons twice: FOLDER/student without the instructor notes, FOLDER/teacher with the model
answers filled in, the checks open and the notes at the end. What is there already is refused, unless --overwrite.
"""

import argparse
import sys
from pathlib import Path

import nbformat

from promax_nb.data.storage import write_atomic
from promax_nb.teach import class_copies

LESSONS = Path(__file__).resolve().parent.parent / 'nbs' / 'lessons'


def main(argv=None) -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('folder', type=Path, help='where the folders student and teacher are made')
    told = 'replace lessons that are there: somebody may have filled them in'
    p.add_argument('--overwrite', action='store_true', help=told)
    args = p.parse_args(argv)
    places = {name: args.folder / name for name in ('student', 'teacher')}
    lessons = sorted(LESSONS.glob('[0-9]*.ipynb'))
    there = [place / lesson.name for place in places.values() for lesson in lessons if (place / lesson.name).exists()]
    if there and not args.overwrite:
        print(f'{there[0]} is there already: name another folder, or pass --overwrite to replace it.', file=sys.stderr)
        return 2
    for place in places.values():
        place.mkdir(parents=True, exist_ok=True)
    for lesson in lessons:
        for place, copy in zip(places.values(), class_copies(nbformat.read(lesson, 4)), strict=True):
            write_atomic(place / lesson.name, lambda name, copy=copy: nbformat.write(copy, name))
    print(f'{len(lessons)} lessons each: {", ".join(map(str, places.values()))}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
