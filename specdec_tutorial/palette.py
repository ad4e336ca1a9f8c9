"""One color per idea, the same in every figure, widget and terminal.

The colors are those of Okabe and Ito's palette, which stay distinct for all common kinds of color blindness
and, in this choice, in gray scale too.
"""

ACCEPTED = "#009E73"  # bluish green: the target agreed with the guess
REJECTED = "#D55E00"  # vermilion: the guess was thrown away
CORRECTED = "#E69F00"  # orange: the token the target put in its place
TARGET = "#0072B2"  # blue: the large model, p
DRAFTER = "#CC79A7"  # reddish purple: the small model, q
NEUTRAL = "#666666"  # gray: whatever is none of these
