"""Train the embedded model pairs: ``python -m specdec_tutorial.training --help``.

Needs the extra ``[train]``. The steps, in order: :mod:`.data` reads text and trains the
tokenizer, :mod:`.optimize` trains the target and distills the drafter from it, and :mod:`.card` writes
what happened into the model card.
"""
