"""`chappe chat`: a chat in a terminal.

`state` holds what is shown and how events change it, `layout` turns it into rows of a given width; both are pure.
`conductor` moves the state by what the client tells and does what the keys ask for; `screen` draws and takes keys.
"""
