"""Removes ``__new__`` from classes whose objects come only from a constructor or a factory."""

cdef extern from *:
    """
    /* Cython makes objects through tp_new, which stays; only the attribute that Python code looks up is removed. The
       lookup then ends at object.__new__, which refuses any type that is not laid out like object. */
    static int mcp_take_new(PyTypeObject *type) {
        if (PyDict_DelItemString(type->tp_dict, "__new__") < 0) return -1;
        PyType_Modified(type);
        return 0;
    }
    """
    int seal "mcp_take_new"(type sealed) except -1
