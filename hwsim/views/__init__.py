"""What a report looks like: a table for the terminal, pictures, a page,
a timeline, and files. Views only read reports.
"""
